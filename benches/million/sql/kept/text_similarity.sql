-- Synthetic images of each hard image at each level, as if $seeds_per_level had been generated and all had passed.
SELECT
    digest('sample', h.source_id, l.image_guidance, s.seed) AS sample_id,
    h.source_id, h.label, h.class_name, l.image_guidance, s.seed, 0 AS attempt,
    draw(1000, 'text', h.source_id, l.image_guidance, s.seed) / 1000.0 AS text_similarity,
    draw(1000, 'image', h.source_id, l.image_guidance, s.seed) / 1000.0 AS image_similarity
FROM hard_samples h
CROSS JOIN (SELECT unnest($image_guidance) AS image_guidance) l
CROSS JOIN (SELECT unnest(range(0, $seeds_per_level)) AS seed) s
