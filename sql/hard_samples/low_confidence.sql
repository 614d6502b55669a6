-- Training images whose class a classifier finds improbable (`confidences`): those below $max_probability, and of all
-- training images no more than the least probable $hard_fraction. An image without a confidence is not hard. Images of
-- $exclude_classes are left out, and count for nothing.
SELECT source_id, label, class_name, concat('its class has the probability ', probability) AS reason
FROM (
    SELECT
        i.source_id, i.label, i.class_name, c.probability,
        row_number() OVER (ORDER BY c.probability, i.source_id) AS place,
        count(*) OVER () AS images
    FROM images i
    JOIN confidences c ON c.path = i.path
    WHERE i.split = 'train' AND array_position($exclude_classes, i.class_name) IS NULL
)
WHERE probability < $max_probability AND place <= $hard_fraction * images
