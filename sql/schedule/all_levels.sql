-- Every level in every epoch of the curriculum, mixed; then real images only.
SELECT $strategy AS curriculum, '0' AS trial, e.epoch, 0 AS stage, l.image_guidance
FROM (SELECT unnest(range(0, $curriculum_epochs)) AS epoch) e
CROSS JOIN (SELECT unnest($image_guidance) AS image_guidance) l
UNION ALL
SELECT $strategy, '0', epoch, 1, 100
FROM (SELECT unnest(range($curriculum_epochs, $epochs)) AS epoch)
