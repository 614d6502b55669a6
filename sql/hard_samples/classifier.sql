-- Training images whose class the classifier $classifier of [models.classifiers] finds improbable: those below
-- $max_probability, and at most the $hard_fraction of all training images that are least probable. Images of
-- $exclude_classes are left out. The classifier's classes are the labels. Images are classified below the join, so
-- that the join sees probabilities instead of pixels.
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
WHERE probability < $max_probability AND place <= (
    SELECT floor(round($hard_fraction * count(*), 6)) FROM images WHERE split = 'train'
)
