-- All levels at first, then all but the lowest, and so on up to the highest alone, in equal shares of the curriculum's
-- epochs; the remainder goes to the earliest stages. Then real images only.
WITH levels AS (
    SELECT
        image_guidance,
        cast(row_number() OVER (ORDER BY image_guidance) AS bigint) - 1 AS place,
        count(*) OVER () AS levels
    FROM (SELECT unnest($levels) AS image_guidance)
),
stages AS (
    SELECT
        place AS stage,
        place * ($curriculum_epochs / levels) + least(place, $curriculum_epochs % levels) AS first_epoch,
        (place + 1) * ($curriculum_epochs / levels) + least(place + 1, $curriculum_epochs % levels) AS end_epoch
    FROM levels
)
SELECT $strategy AS curriculum, t.trial, e.epoch, s.stage, l.image_guidance
FROM (SELECT unnest(range(0, $curriculum_epochs)) AS epoch) e
JOIN stages s ON e.epoch >= s.first_epoch AND e.epoch < s.end_epoch
JOIN levels l ON l.place >= s.stage
CROSS JOIN (SELECT unnest($trials) AS trial) t
UNION ALL
SELECT $strategy, t.trial, e.epoch, (SELECT count(*) FROM levels), 100
FROM (SELECT unnest($trials) AS trial) t
CROSS JOIN (SELECT unnest(range($curriculum_epochs, $epochs)) AS epoch) e
