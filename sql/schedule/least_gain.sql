-- The other control of `adaptive`: in each epoch of the curriculum, the level from which the model learns least; among
-- equal gains the lowest.
SELECT $strategy AS curriculum, trial, epoch, epoch AS stage, image_guidance
FROM (
    SELECT
        trial, epoch, image_guidance,
        row_number() OVER (PARTITION BY trial, epoch ORDER BY gain, image_guidance) AS place
    FROM progress
    WHERE label IS NULL
)
WHERE place = 1
UNION ALL
SELECT $strategy, t.trial, e.epoch, $curriculum_epochs, 100
FROM (SELECT unnest($trials) AS trial) t
CROSS JOIN (SELECT unnest(range($curriculum_epochs, $epochs)) AS epoch) e
