-- Plain CLIP cosines of each image: to the filter prompt, and to the real image that it was generated from.
-- Images are embedded below the joins, so that the joins see embeddings instead of pixels.
SELECT
    c.score_id, c.sample_id, c.filter_prompt, $clip AS clip,
    cosine_similarity(s.made, t.wanted) AS text_similarity,
    cosine_similarity(s.made, p.original) AS image_similarity
FROM candidates c
JOIN (
    SELECT sample_id, clip_image(image) AS made
    FROM spectrum
    WHERE sample_id IN (SELECT sample_id FROM candidates)
) s ON s.sample_id = c.sample_id
JOIN (
    SELECT pixel_id, clip_image(image) AS original
    FROM pixels
    WHERE pixel_id IN (SELECT pixel_id FROM candidates)
) p ON p.pixel_id = c.pixel_id
JOIN (
    SELECT filter_prompt, clip_text(filter_prompt) AS wanted
    FROM (SELECT DISTINCT filter_prompt FROM candidates)
) t ON t.filter_prompt = c.filter_prompt
