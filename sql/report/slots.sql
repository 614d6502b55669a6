-- How many slots kept an image, with the median over slots of the best text similarity: by class, by level, and of all,
-- where class and level are NULL. Classes of one name are told apart by their labels.
WITH named AS (
    SELECT
        label,
        CASE WHEN count(*) OVER (PARTITION BY class_name) > 1 THEN concat(class_name, ' (', label, ')') ELSE class_name
        END AS class_name
    FROM classes
),
slots AS (
    SELECT
        n.class_name, c.image_guidance, max(s.text_similarity) AS best,
        max(CASE WHEN k.sample_id IS NULL THEN 0 ELSE 1 END) AS kept
    FROM candidates c
    JOIN named n ON n.label = c.label
    LEFT JOIN scores s ON s.score_id = c.score_id
    LEFT JOIN kept k ON k.sample_id = c.sample_id
    GROUP BY c.source_id, n.class_name, c.image_guidance, c.seed
)
SELECT class_name, NULL AS image_guidance, count(*) AS slots, sum(kept) AS kept, median(best) AS text_similarity
FROM slots
GROUP BY class_name
UNION ALL
SELECT NULL, image_guidance, count(*), sum(kept), median(best)
FROM slots
GROUP BY image_guidance
UNION ALL
SELECT NULL, NULL, count(*), sum(kept), median(best)
FROM slots
ORDER BY class_name, image_guidance
