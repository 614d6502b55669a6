-- Training images whose class a classifier finds improbable (`confidences`): those below $max_probability, and at most
-- the $hard_fraction of all training images that are least probable. An image without a probability is not hard, nor
-- is one of $exclude_classes.
SELECT source_id, label, class_name, concat('its class has the probability ', probability) AS reason
FROM (
    SELECT
        i.source_id, i.label, i.class_name, c.probability,
        row_number() OVER (ORDER BY c.probability, i.source_id) AS place
    FROM images i
    JOIN confidences c ON c.path = i.path
    WHERE i.split = 'train' AND array_position($exclude_classes, i.class_name) IS NULL
)
WHERE probability < $max_probability AND place <= (
    SELECT floor(round($hard_fraction * count(*), 6)) FROM images WHERE split = 'train'
)
