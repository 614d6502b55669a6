-- One level in each epoch of the curriculum, drawn for each epoch; then real images only.
WITH levels AS (
    SELECT
        image_guidance,
        cast(row_number() OVER (ORDER BY image_guidance) AS bigint) - 1 AS place,
        count(*) OVER () AS levels
    FROM (SELECT unnest($levels) AS image_guidance)
),
drawn AS (
    SELECT t.trial, e.epoch, draw((SELECT count(*) FROM levels), 'level', $curriculum_seed, t.trial, e.epoch) AS place
    FROM (SELECT unnest(range(0, $curriculum_epochs)) AS epoch) e
    CROSS JOIN (SELECT unnest($trials) AS trial) t
)
SELECT $strategy AS curriculum, d.trial, d.epoch, d.epoch AS stage, l.image_guidance
FROM drawn d
JOIN levels l ON l.place = d.place
UNION ALL
SELECT $strategy, t.trial, e.epoch, $curriculum_epochs, 100
FROM (SELECT unnest($trials) AS trial) t
CROSS JOIN (SELECT unnest(range($curriculum_epochs, $epochs)) AS epoch) e
