-- The images of each class in each split: those that were read, and those that were rejected when they were read.
SELECT l.split, l.label, l.class_name, count(p.pixel_id) AS images, count(r.id) AS rejects
FROM listing l
LEFT JOIN (SELECT DISTINCT pixel_id FROM pixels) p ON p.pixel_id = l.pixel_id
LEFT JOIN (SELECT DISTINCT id FROM rejects WHERE step = 'pixels') r ON r.id = l.pixel_id
GROUP BY l.split, l.label, l.class_name
