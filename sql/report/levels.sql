-- The outcome of each candidate, for the closing tables. Classes of one name are told apart by their labels.
WITH named AS (
    SELECT
        label,
        CASE WHEN count(*) OVER (PARTITION BY class_name) > 1 THEN concat(class_name, ' (', label, ')') ELSE class_name
        END AS class_name
    FROM classes
)
SELECT
    n.class_name, c.image_guidance, k.sample_id IS NOT NULL AS kept,
    s.text_similarity, s.image_similarity
FROM candidates c
JOIN named n ON n.label = c.label
LEFT JOIN scores s ON s.score_id = c.score_id
LEFT JOIN kept k ON k.sample_id = c.sample_id
