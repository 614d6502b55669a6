-- Training images whose class the classifier $classifier of [models.classifiers] finds improbable: those below
-- $max_probability, and no more than $hard_fraction of all training images, the least probable. Images of
-- $exclude_classes are left out. Its classes are the labels. Images are classified below the join: what is joined is
-- probabilities.
SELECT source_id, label, class_name, concat('its class has the probability ', probability) AS reason
FROM (
    SELECT
        i.source_id, i.label, i.class_name, p.probabilities[i.label + 1] AS probability,
        row_number() OVER (ORDER BY p.probabilities[i.label + 1], i.source_id) AS place
    FROM images i
    JOIN (
        SELECT pixel_id, classify($classifier, image) AS probabilities
        FROM pixels
        WHERE pixel_id IN (
            SELECT pixel_id FROM images
            WHERE split = 'train' AND array_position($exclude_classes, class_name) IS NULL
        )
    ) p ON p.pixel_id = i.pixel_id
    WHERE i.split = 'train' AND p.probabilities[i.label + 1] IS NOT NULL
)
WHERE probability < $max_probability AND place <= $hard_fraction * (SELECT count(*) FROM images WHERE split = 'train')
