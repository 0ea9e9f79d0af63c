-- What people ask of the tables of schema.sql. Each is a query of its own, and a test runs them all.

-- 1. Last seen: each device's newest event, and how long ago it came.
SELECT DISTINCT ON (device) device, at, kind, pipeline, now() - arrived AS ago
FROM event ORDER BY device, at DESC;

-- 2. Events an hour by label, of the last day: boxes, objects, labels of text and sound.
SELECT date_trunc('hour', at) AS hour, label, count(*) AS events
FROM event
CROSS JOIN LATERAL (
    SELECT DISTINCT found->>'label' AS label FROM jsonb_array_elements(coalesce(body->'detections', '[]')) AS found
    UNION SELECT body->>'label' WHERE body ? 'label'
) AS labels
WHERE at > now() - interval '1 day'
GROUP BY hour, label ORDER BY hour, events DESC;

-- 3. Devices behind: numbers that neither came nor were declared lost.
SELECT device, epoch, last, received, declared, missing FROM account WHERE missing > 0 ORDER BY missing DESC;

-- 4. Gaps that are still open, the newest first, and why.
SELECT device, at, first, last, open, late, why FROM gap WHERE NOT closed AND open > 0 ORDER BY at DESC;

-- 5. Late: what came more than five minutes after its time, by device, in the last week.
SELECT device, count(*) FILTER (WHERE arrived - at > interval '5 minutes') AS late, count(*) AS events,
       max(arrived - at) AS longest
FROM event WHERE arrived > now() - interval '7 days'
GROUP BY device ORDER BY late DESC;

-- 6. Drift: how sure detectors are this week beside the weeks before, by device, pipeline and label.
SELECT device, pipeline, found->>'label' AS label,
       avg((found->>'score')::real) FILTER (WHERE at > now() - interval '7 days') AS this_week,
       avg((found->>'score')::real) FILTER (WHERE at <= now() - interval '7 days') AS before,
       count(*) AS boxes
FROM event CROSS JOIN LATERAL jsonb_array_elements(coalesce(body->'detections', '[]')) AS found
WHERE kind = 'detections' AND at > now() - interval '35 days'
GROUP BY 1, 2, 3 HAVING count(*) > 100
ORDER BY avg((found->>'score')::real) FILTER (WHERE at > now() - interval '7 days')
       - avg((found->>'score')::real) FILTER (WHERE at <= now() - interval '7 days');

-- 7. Bytes a day by device.
SELECT device, date_trunc('day', at) AS day, sum(bytes) AS bytes, count(*) AS events
FROM event WHERE at > now() - interval '30 days'
GROUP BY device, day ORDER BY bytes DESC;

-- 8. Silent devices: nothing for an hour, from those that told something within a month.
SELECT device, max(arrived) AS last FROM arrival
WHERE at > now() - interval '30 days'
GROUP BY device HAVING max(arrived) < now() - interval '1 hour' ORDER BY last;

-- 9. Out of the usual, and rules that fired, in the last day.
SELECT at, device, pipeline, kind, coalesce(body->>'rule', body->>'name') AS what, body->>'snapshot' AS snapshot
FROM event
WHERE at > now() - interval '1 day' AND (kind = 'rule' OR (kind = 'anomaly' AND (body->>'unusual')::boolean))
ORDER BY at DESC LIMIT 200;

-- 10. Texts that hold a word, heard, read or typed.
SELECT at, device, pipeline, body->>'text' AS text, body ? 'heard' AS heard, body ? 'read' AS read
FROM event WHERE kind = 'text' AND body->>'text' ILIKE '%door%' ORDER BY at DESC LIMIT 100;

-- 11. Versions that serve: the model of each pipeline's newest event.
SELECT DISTINCT ON (device, pipeline) device, pipeline, body#>>'{model,name}' AS model, body#>>'{model,version}' AS version
FROM event WHERE body ? 'model' AND at > now() - interval '7 days' ORDER BY device, pipeline, at DESC;

-- 12. How large it is: rows and bytes of each month's table.
SELECT inhrelid::regclass AS month, pg_size_pretty(pg_total_relation_size(inhrelid)) AS size
FROM pg_inherits WHERE inhparent = 'event'::regclass ORDER BY 1;
