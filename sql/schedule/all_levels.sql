-- Every level in every epoch of the curriculum, mixed; then real images only.
SELECT $strategy AS curriculum, t.trial, e.epoch, 0 AS stage, l.image_guidance
FROM (SELECT unnest(range(0, $curriculum_epochs)) AS epoch) e
CROSS JOIN (SELECT unnest($levels) AS image_guidance) l
CROSS JOIN (SELECT unnest($trials) AS trial) t
UNION ALL
SELECT $strategy, t.trial, e.epoch, 1, 100
FROM (SELECT unnest($trials) AS trial) t
CROSS JOIN (SELECT unnest(range($curriculum_epochs, $epochs)) AS epoch) e
