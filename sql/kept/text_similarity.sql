-- The best attempt of each slot among those whose text similarity reaches the threshold. There is no upper bound, and
-- an image without a score never passes. The threshold is rounded to the precision of the scores, so that a score that is
-- copied from the table keeps its image.
SELECT
    sample_id, source_id, label, class_name, image_guidance, seed, attempt, prompt, text_similarity, image_similarity
FROM (
    SELECT
        c.sample_id, c.source_id, c.label, c.class_name, c.image_guidance, c.seed, c.attempt, c.prompt,
        s.text_similarity, s.image_similarity,
        row_number() OVER (
            PARTITION BY c.source_id, c.image_guidance, c.seed
            ORDER BY s.text_similarity DESC, c.attempt
        ) AS place
    FROM candidates c
    JOIN scores s ON s.score_id = c.score_id
    WHERE s.text_similarity >= cast($min_text_similarity AS real)
)
WHERE place = 1
