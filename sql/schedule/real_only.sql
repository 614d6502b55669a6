-- No synthetic images in any epoch: real images only, with hard ones oversampled. The control of every other strategy.
SELECT $strategy AS curriculum, t.trial, e.epoch, 0 AS stage, 100 AS image_guidance
FROM (SELECT unnest(range(0, $epochs)) AS epoch) e
CROSS JOIN (SELECT unnest($trials) AS trial) t
