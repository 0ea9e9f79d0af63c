"""A consumer that loses nothing: it keeps an event, then acknowledges it. Any MQTT client of any language will do.

Subscribe with QoS 1 and a session of your own (a fixed client id, no clean session), keep each event once by its id,
and when it is safe publish {"ids": [id]} to PREFIX/DEVICE/ack. The device (mqtt.ack = true) sends an alert again
until then. Numbers that never come are declared by an event of kind "gap". What is no event is passed over: a message
that ended the consumer would come again at each of its starts.
"""

import json
import sqlite3
import sys

import paho.mqtt.client as mqtt

store = sqlite3.connect("events.db", isolation_level=None)
store.execute("PRAGMA synchronous = FULL")
store.execute("CREATE TABLE IF NOT EXISTS event (id TEXT PRIMARY KEY, body TEXT)")


def on_connect(client: mqtt.Client, userdata: object, flags: object, reason: object, properties: object) -> None:
    client.subscribe("edge/v1/+/+/events", qos=1)


def on_message(client: mqtt.Client, userdata: object, message: mqtt.MQTTMessage) -> None:
    try:
        name, body = str(json.loads(message.payload)["id"]), message.payload.decode()
        name.encode()
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        print(f"{message.topic}: not an event, passed over: {error!r}: {message.payload[:80]!r}", file=sys.stderr)
        return
    store.execute("INSERT OR IGNORE INTO event VALUES (?, ?)", (name, body))
    client.publish(message.topic.rsplit("/", 2)[0] + "/ack", json.dumps({"ids": [name]}), qos=1)


consumer = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id="keeper", clean_session=False)
consumer.on_connect, consumer.on_message = on_connect, on_message
consumer.connect(sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1")
consumer.loop_forever()
