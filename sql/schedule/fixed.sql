-- One level ($level) in every epoch of the curriculum; then real images only.
SELECT $strategy AS curriculum, '0' AS trial, epoch, 0 AS stage, $level AS image_guidance
FROM (SELECT unnest(range(0, $curriculum_epochs)) AS epoch)
UNION ALL
SELECT $strategy, '0', epoch, 1, 100
FROM (SELECT unnest(range($curriculum_epochs, $epochs)) AS epoch)
