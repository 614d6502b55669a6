-- Problems of rows: duplicate rows, missing rows, rows that refer to nothing. Each row names a table, a problem, and
-- how many rows have it.
SELECT 'pixels' AS table_name, 'two rows of one pixel_id' AS problem, count(*) AS rows
FROM (SELECT pixel_id FROM pixels GROUP BY pixel_id HAVING count(*) > 1)
UNION ALL
SELECT 'spectrum', 'two rows of one sample_id', count(*)
FROM (SELECT sample_id FROM spectrum GROUP BY sample_id HAVING count(*) > 1)
UNION ALL
SELECT 'scores', 'two rows of one score_id', count(*)
FROM (SELECT score_id FROM scores GROUP BY score_id HAVING count(*) > 1)
UNION ALL
SELECT 'candidates', 'two rows of one sample_id', count(*)
FROM (SELECT sample_id FROM candidates GROUP BY sample_id HAVING count(*) > 1)
UNION ALL
SELECT 'kept', 'two rows of one slot', count(*)
FROM (SELECT 1 FROM kept GROUP BY source_id, image_guidance, seed HAVING count(*) > 1)
UNION ALL
SELECT 'manifest', 'an epoch whose positions are not 0, 1, 2, …', count(*)
FROM (
    SELECT 1 FROM manifest GROUP BY curriculum, trial, epoch
    HAVING min(position) <> 0 OR max(position) <> count(*) - 1 OR count(DISTINCT position) <> count(*)
)
UNION ALL
SELECT 'spectrum', 'a candidate that is neither in the table nor rejected', count(*)
FROM candidates c
WHERE NOT EXISTS (SELECT 1 FROM spectrum s WHERE s.sample_id = c.sample_id)
    AND NOT EXISTS (SELECT 1 FROM rejects r WHERE r.step = 'spectrum' AND r.id = c.sample_id)
UNION ALL
SELECT 'scores', 'a candidate that is neither in the table nor rejected', count(*)
FROM candidates c
WHERE NOT EXISTS (SELECT 1 FROM scores s WHERE s.score_id = c.score_id)
    AND NOT EXISTS (SELECT 1 FROM rejects r WHERE r.step = 'scores' AND r.id = c.score_id)
UNION ALL
SELECT 'rejects', 'a row that was generated all the same', count(*)
FROM rejects r
JOIN spectrum s ON s.sample_id = r.id
WHERE r.step = 'spectrum'
UNION ALL
SELECT 'kept', 'a row that is not a candidate', count(*)
FROM kept k
WHERE NOT EXISTS (SELECT 1 FROM candidates c WHERE c.sample_id = k.sample_id)
UNION ALL
SELECT 'manifest', 'a row that is neither a real image nor a kept one', count(*)
FROM manifest m
WHERE NOT EXISTS (SELECT 1 FROM images i WHERE i.source_id = m.sample_id)
    AND NOT EXISTS (SELECT 1 FROM kept k WHERE k.sample_id = m.sample_id)
UNION ALL
SELECT 'manifest', 'a row of a source that is kept for validation or test', count(*)
FROM manifest m
WHERE EXISTS (SELECT 1 FROM validation v WHERE v.source_id = m.source_id)
    OR EXISTS (SELECT 1 FROM images i WHERE i.source_id = m.source_id AND i.split <> 'train')
UNION ALL
SELECT 'manifest', 'an epoch of the schedule that has no rows', count(*)
FROM (SELECT DISTINCT curriculum, trial, epoch FROM schedule) s
WHERE NOT EXISTS (
    SELECT 1 FROM manifest m WHERE m.curriculum = s.curriculum AND m.trial = s.trial AND m.epoch = s.epoch
)
