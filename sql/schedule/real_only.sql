-- No synthetic images in any epoch: real images only, with hard ones oversampled. A baseline.
SELECT $strategy AS curriculum, '0' AS trial, epoch, 0 AS stage, 100 AS image_guidance
FROM (SELECT unnest(range(0, $epochs)) AS epoch)
