-- The throughput of this lake: UNet evaluations of its units, and the seconds in which any unit was being worked on, so
-- that pauses between runs do not count.
SELECT sum(unet_evaluations) AS unet_evaluations, sum(greatest(ended - greatest(began, reached), 0)) / 1000.0 AS seconds
FROM (
    SELECT
        unet_evaluations, began, ended,
        coalesce(max(ended) OVER (ORDER BY began, ended ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), began) AS reached
    FROM (
        SELECT unet_evaluations, finished_ms - cast(1000 * seconds AS bigint) AS began, finished_ms AS ended
        FROM ledger
        WHERE step = 'spectrum' AND unet_evaluations > 0
    )
)
