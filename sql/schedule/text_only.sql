-- Images that keep nothing of the real image (guidance 0) in every epoch of the curriculum; then real images only.
SELECT $strategy AS curriculum, t.trial, e.epoch, 0 AS stage, 0 AS image_guidance
FROM (SELECT unnest(range(0, $curriculum_epochs)) AS epoch) e
CROSS JOIN (SELECT unnest($trials) AS trial) t
UNION ALL
SELECT $strategy, t.trial, e.epoch, 1, 100
FROM (SELECT unnest($trials) AS trial) t
CROSS JOIN (SELECT unnest(range($curriculum_epochs, $epochs)) AS epoch) e
