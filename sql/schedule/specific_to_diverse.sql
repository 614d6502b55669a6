-- From high guidance (close to the real image) to low (prototypical, diverse), in equal shares of the curriculum's
-- epochs; the remainder goes to the highest levels. Then real images only (guidance 100).
WITH levels AS (
    SELECT
        image_guidance,
        cast(row_number() OVER (ORDER BY image_guidance DESC) AS bigint) - 1 AS stage,
        count(*) OVER () AS levels
    FROM (SELECT unnest($levels) AS image_guidance)
),
shares AS (
    SELECT
        image_guidance, stage,
        stage * ($curriculum_epochs / levels) + least(stage, $curriculum_epochs % levels) AS first_epoch,
        (stage + 1) * ($curriculum_epochs / levels) + least(stage + 1, $curriculum_epochs % levels) AS end_epoch
    FROM levels
)
SELECT $strategy AS curriculum, t.trial, e.epoch, s.stage, s.image_guidance
FROM (SELECT unnest(range(0, $curriculum_epochs)) AS epoch) e
JOIN shares s ON e.epoch >= s.first_epoch AND e.epoch < s.end_epoch
CROSS JOIN (SELECT unnest($trials) AS trial) t
UNION ALL
SELECT $strategy, t.trial, e.epoch, (SELECT count(*) FROM levels), 100
FROM (SELECT unnest($trials) AS trial) t
CROSS JOIN (SELECT unnest(range($curriculum_epochs, $epochs)) AS epoch) e
