"""SFT → reward model → PPO, RLOO, GRPO and DPO on one-sentence summaries of papers, from nothing, and what a judge says of it."""
