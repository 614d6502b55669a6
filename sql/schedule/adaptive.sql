-- In each epoch of the curriculum, the level from which the model learns most, as far as there is feedback from the
-- trainer; then real images only.
SELECT curriculum, trial, epoch, epoch AS stage, image_guidance
FROM progress
WHERE chosen
UNION ALL
SELECT $strategy, t.trial, e.epoch, $curriculum_epochs, 100
FROM (SELECT unnest($trials) AS trial) t
CROSS JOIN (SELECT unnest(range($curriculum_epochs, $epochs)) AS epoch) e
