-- The spectrum validation set: up to $validation_sources hard images that kept an image at every level, with one image
-- of each level and the real image (guidance 100). None of these sources is trained on.
WITH complete AS (
    SELECT source_id
    FROM kept
    GROUP BY source_id
    HAVING count(DISTINCT image_guidance) = array_length($image_guidance)
),
chosen AS (
    SELECT source_id
    FROM (
        SELECT source_id, row_number() OVER (ORDER BY digest('validation', $seed, source_id)) AS place
        FROM complete
    )
    WHERE place <= $validation_sources
)
SELECT sample_id, source_id, label, class_name, image_guidance
FROM (
    SELECT
        k.sample_id, k.source_id, k.label, k.class_name, k.image_guidance,
        row_number() OVER (
            PARTITION BY k.source_id, k.image_guidance ORDER BY digest('validation', $seed, k.sample_id)
        ) AS place
    FROM kept k
    JOIN chosen c ON c.source_id = k.source_id
)
WHERE place = 1
UNION ALL
SELECT h.source_id AS sample_id, h.source_id, h.label, h.class_name, 100
FROM hard_samples h
JOIN chosen c ON c.source_id = h.source_id
