-- The samples that the built-in learner may see: real images of every split, and the synthetic images that were kept.
-- `trained` marks those that a manifest may hold: images of the split train and synthetic ones whose source is not in the
-- spectrum validation set.
SELECT
    s.sample_id, s.image_id, s.label, s.split, s.image_guidance,
    s.split IN ('train', 'synthetic') AND v.source_id IS NULL AS trained
FROM (
    SELECT source_id AS sample_id, pixel_id AS image_id, source_id, label, split, 100 AS image_guidance FROM images
    UNION ALL
    SELECT sample_id, sample_id AS image_id, source_id, label, 'synthetic', image_guidance FROM kept
) s
LEFT JOIN (SELECT DISTINCT source_id FROM validation) v ON v.source_id = s.source_id
