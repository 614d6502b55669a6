-- Every training image of a class with fewer than $max_class_count training images ("few" in the long-tail
-- literature), except for $exclude_classes.
SELECT i.source_id, i.label, i.class_name, concat('its class has ', c.class_count, ' images') AS reason
FROM images i
JOIN (SELECT label, count(*) AS class_count FROM images WHERE split = 'train' GROUP BY label) c
    ON c.label = i.label
WHERE i.split = 'train' AND c.class_count < $max_class_count
    AND array_position($exclude_classes, i.class_name) IS NULL
