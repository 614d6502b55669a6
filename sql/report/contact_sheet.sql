-- The pictures of the contact sheet: per hard sample and guidance level, the kept one of the first seed, or the
-- best that was made where none was kept.
SELECT source_id, image_guidance, image
FROM (
    SELECT
        p.source_id, p.image_guidance, s.image
    FROM (
        SELECT
            c.source_id, c.image_guidance, c.sample_id,
            row_number() OVER (
                PARTITION BY c.source_id, c.image_guidance
                ORDER BY k.sample_id IS NULL, c.seed, c.attempt DESC
            ) AS place
        FROM candidates c
        LEFT JOIN kept k ON k.sample_id = c.sample_id
    ) p
    JOIN spectrum s ON s.sample_id = p.sample_id
    WHERE p.place = 1
)
UNION ALL
SELECT h.source_id, 100 AS image_guidance, p.image
FROM hard_samples h
JOIN pixels p ON p.source_id = h.source_id
