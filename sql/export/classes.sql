-- The classes of the data set, in the order of their labels; two of them may share a name.
SELECT label, min(class_name) AS class_name
FROM images
GROUP BY label
ORDER BY label
