-- The samples that the built-in learner may see: real images of every split, and the synthetic images that were kept.
-- `trained` marks those that a baseline trains on: images of the split train outside the spectrum validation set.
SELECT
    i.source_id AS sample_id, i.pixel_id AS image_id, i.label, i.split,
    i.split = 'train' AND v.source_id IS NULL AS trained
FROM images i
LEFT JOIN (SELECT DISTINCT source_id FROM validation) v ON v.source_id = i.source_id
UNION ALL
SELECT sample_id, sample_id AS image_id, label, 'synthetic' AS split, false AS trained FROM kept
