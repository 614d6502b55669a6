-- The control of `adaptive`: the trainer measures as for that strategy, but each level is drawn, whatever was measured.
WITH levels AS (
    SELECT
        image_guidance,
        cast(row_number() OVER (ORDER BY image_guidance) AS bigint) - 1 AS place,
        count(*) OVER () AS levels
    FROM (SELECT unnest($levels) AS image_guidance)
),
drawn AS (
    SELECT
        trial, epoch,
        draw((SELECT count(*) FROM levels), 'random_choice', $curriculum_seed, trial, epoch) AS place
    FROM progress
    WHERE chosen AND label IS NULL
)
SELECT $strategy AS curriculum, d.trial, d.epoch, d.epoch AS stage, l.image_guidance
FROM drawn d
JOIN levels l ON l.place = d.place
UNION ALL
SELECT $strategy, t.trial, e.epoch, $curriculum_epochs, 100
FROM (SELECT unnest($trials) AS trial) t
CROSS JOIN (SELECT unnest(range($curriculum_epochs, $epochs)) AS epoch) e
