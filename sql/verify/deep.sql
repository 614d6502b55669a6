-- Problems found by comparing with the source, opening every image, and generating some rows again from their records.
-- Each row names a table, a problem, and how many rows have it.
SELECT 'pixels' AS table_name, 'an image that cannot be decoded, or is not the one that was read' AS problem, count(*) AS rows
FROM (SELECT info['digest'] AS digest, image_info(load_image(image)) AS seen FROM pixels)
WHERE seen['error'] IS NOT NULL OR seen['digest'] IS NULL OR seen['digest'] <> digest
UNION ALL
SELECT 'spectrum', 'an image that cannot be decoded', count(*)
FROM (SELECT image_info(image) AS seen FROM spectrum)
WHERE seen['error'] IS NOT NULL OR seen['digest'] IS NULL
UNION ALL
-- Rounding differs between devices by a step or two of 255.
SELECT 'spectrum', 'an image that its prompt, guidance and noise do not reproduce', count(*)
FROM (
    SELECT pixel_difference(made.image, s.image) AS difference
    FROM (
        SELECT c.sample_id, img2img(p.image, c.prompt, c.image_guidance, c.noise_seed) AS image
        FROM (
            SELECT
                sample_id, pixel_id, prompt, image_guidance, noise_seed,
                row_number() OVER (ORDER BY digest('deep', sample_id)) AS place
            FROM candidates
            WHERE sample_id IN (SELECT sample_id FROM spectrum)
        ) c
        JOIN pixels p ON p.pixel_id = c.pixel_id
        WHERE c.place <= 8
    ) made
    JOIN spectrum s ON s.sample_id = made.sample_id
)
WHERE difference IS NULL OR difference > 3
UNION ALL
SELECT 'scores', 'a similarity that its image and prompt do not reproduce', count(*)
FROM (
    SELECT c.text_similarity, cosine_similarity(s.embedding, t.embedding) AS again
    FROM (
        SELECT
            sample_id, filter_prompt, text_similarity,
            row_number() OVER (ORDER BY digest('deep', score_id)) AS place
        FROM scores
        WHERE score_id IN (SELECT score_id FROM candidates)
    ) c
    JOIN (
        SELECT sample_id, clip_image(image) AS embedding
        FROM spectrum
        WHERE sample_id IN (
            SELECT sample_id
            FROM (
                SELECT sample_id, row_number() OVER (ORDER BY digest('deep', score_id)) AS place
                FROM scores
                WHERE score_id IN (SELECT score_id FROM candidates)
            )
            WHERE place <= 32
        )
    ) s ON s.sample_id = c.sample_id
    JOIN (
        SELECT filter_prompt, clip_text(filter_prompt) AS embedding
        FROM (SELECT DISTINCT filter_prompt FROM candidates)
    ) t ON t.filter_prompt = c.filter_prompt
    WHERE c.place <= 32
)
WHERE again IS NULL OR abs(again - text_similarity) > 0.001
UNION ALL
SELECT 'pixels', 'an image of the source that is neither in the table nor rejected', count(*)
FROM listing l
WHERE NOT EXISTS (SELECT 1 FROM pixels p WHERE p.pixel_id = l.pixel_id)
    AND NOT EXISTS (SELECT 1 FROM rejects r WHERE r.step = 'pixels' AND r.id = l.pixel_id)
