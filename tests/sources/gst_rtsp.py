"""Serves a film of H.264 by RTSP, with GStreamer's server: run by the system's Python, as its bindings are Debian's.

    python3 gst_rtsp.py FILE.mkv

Prints the port, and for each client a line once it plays. Each client gets the film from its beginning.
"""

import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402

Gst.init(None)
server = GstRtspServer.RTSPServer(address="127.0.0.1", service="0")
factory = GstRtspServer.RTSPMediaFactory()
film = f"filesrc location={sys.argv[1]} ! matroskademux ! h264parse"
factory.set_launch(f"( {film} ! rtph264pay name=pay0 pt=96 config-interval=-1 )")
factory.set_shared(False)
server.get_mount_points().add_factory("/film", factory)
server.connect("client-connected", lambda *_: print("client", flush=True))
if not server.attach(None):
    sys.exit("no port")
print(server.get_bound_port(), flush=True)
GLib.MainLoop().run()
