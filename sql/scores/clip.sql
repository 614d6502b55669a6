-- Plain CLIP cosines of each picture: to the filter prompt, and to the real image that it was made from.
SELECT
    score_id, sample_id, filter_prompt, $clip AS clip,
    cosine_similarity(made, wanted) AS text_similarity,
    cosine_similarity(made, original) AS image_similarity
FROM (
    SELECT
        c.score_id, c.sample_id, c.filter_prompt,
        clip_image(s.image) AS made,
        clip_text(c.filter_prompt) AS wanted,
        clip_image(p.image) AS original
    FROM candidates c
    JOIN spectrum s ON s.sample_id = c.sample_id
    JOIN pixels p ON p.source_id = c.source_id
)
