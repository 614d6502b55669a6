-- The outcome of each candidate, for the closing tables.
SELECT
    c.class_name, c.image_guidance, k.sample_id IS NOT NULL AS kept,
    s.text_similarity, s.image_similarity
FROM candidates c
LEFT JOIN scores s ON s.score_id = c.score_id
LEFT JOIN kept k ON k.sample_id = c.sample_id
