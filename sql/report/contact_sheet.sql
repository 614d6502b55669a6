-- The images of the contact sheet. For each of the first hard samples and each guidance level: the kept image of the
-- first seed, or the last attempt if none was kept; and the real image as guidance 100.
WITH sources AS (SELECT source_id FROM hard_samples ORDER BY source_id LIMIT 24),
shown AS (
    SELECT c.source_id, c.image_guidance, c.sample_id, row_number() OVER (
        PARTITION BY c.source_id, c.image_guidance
        ORDER BY k.sample_id IS NULL, c.seed, c.attempt DESC
    ) AS place
    FROM candidates c
    LEFT JOIN kept k ON k.sample_id = c.sample_id
    WHERE c.source_id IN (SELECT source_id FROM sources)
)
SELECT source_id, image_guidance, load_image(image) AS image
FROM (
    SELECT p.source_id, p.image_guidance, s.image
    FROM (SELECT * FROM shown WHERE place = 1) p
    JOIN spectrum s ON s.sample_id = p.sample_id
    UNION ALL
    SELECT i.source_id, 100 AS image_guidance, p.image
    FROM (SELECT * FROM images WHERE source_id IN (SELECT source_id FROM sources)) i
    JOIN pixels p ON p.pixel_id = i.pixel_id
)
