//! A memory limit: sorts spill to disk, and a join that cannot spill fails with a hint.

use super::Curricula;
use crate::error::Error;

#[tokio::test]
async fn with_a_memory_limit_sorts_spill_to_disk_and_rows_stay_the_same() {
    let sorted = "SELECT value, md5(cast(value AS text)) AS rank FROM range(0, 300000) ORDER BY rank";
    let (free, limited) = (Curricula::open(&[]).await, Curricula::open(&["queries.memory_limit_mib=16"]).await);
    let spilled = |plan: &str| plan.contains("spill_count=") && !plan.contains("spill_count=0");
    assert!(!spilled(&free.text(&format!("EXPLAIN ANALYZE {sorted}")).await));
    let plan = limited.text(&format!("EXPLAIN ANALYZE {sorted}")).await;
    assert!(spilled(&plan), "{plan}");
    assert!(free.text(sorted).await == limited.text(sorted).await);

    let side = "SELECT md5(cast(value AS text)) AS rank FROM range(0, 600000)";
    let joined = format!("SELECT count(*) FROM ({side}) a JOIN ({side}) b ON a.rank = b.rank");
    let context = limited.pipeline.project.session.context(&limited.snapshot).unwrap();
    let error = context.sql(&joined).await.unwrap().collect().await.unwrap_err();
    let message = Error::query("joined", error).to_string();
    assert!(message.ends_with("hint: raise `memory_limit_mib` of `[queries]`, or leave it out"), "{message}");
}
