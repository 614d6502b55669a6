-- One level in each epoch of the curriculum, drawn for each epoch; then real images only.
WITH levels AS (
    SELECT image_guidance, cast(row_number() OVER (ORDER BY image_guidance) AS bigint) - 1 AS place
    FROM (SELECT unnest($image_guidance) AS image_guidance)
),
drawn AS (
    SELECT epoch, draw((SELECT count(*) FROM levels), 'level', $seed, epoch) AS place
    FROM (SELECT unnest(range(0, $curriculum_epochs)) AS epoch)
)
SELECT $strategy AS curriculum, '0' AS trial, d.epoch, d.epoch AS stage, l.image_guidance
FROM drawn d
JOIN levels l ON l.place = d.place
UNION ALL
SELECT $strategy, '0', epoch, $curriculum_epochs, 100
FROM (SELECT unnest(range($curriculum_epochs, $epochs)) AS epoch)
