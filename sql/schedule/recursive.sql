-- Up through the levels and down again, one level in each epoch of the curriculum; then real images only.
WITH levels AS (
    SELECT
        image_guidance,
        cast(row_number() OVER (ORDER BY image_guidance) AS bigint) - 1 AS place,
        count(*) OVER () AS levels
    FROM (SELECT unnest($levels) AS image_guidance)
),
-- With n levels a turn has 2n - 2 epochs: 0, 1, …, n-1, n-2, …, 1.
turns AS (
    SELECT e.epoch, l.levels, e.epoch % greatest(2 * l.levels - 2, 1) AS step
    FROM (SELECT unnest(range(0, $curriculum_epochs)) AS epoch) e
    CROSS JOIN (SELECT count(*) AS levels FROM levels) l
)
SELECT $strategy AS curriculum, t.trial, u.epoch, u.epoch AS stage, l.image_guidance
FROM turns u
JOIN levels l ON l.place = least(u.step, 2 * u.levels - 2 - u.step)
CROSS JOIN (SELECT unnest($trials) AS trial) t
UNION ALL
SELECT $strategy, t.trial, e.epoch, $curriculum_epochs, 100
FROM (SELECT unnest($trials) AS trial) t
CROSS JOIN (SELECT unnest(range($curriculum_epochs, $epochs)) AS epoch) e
