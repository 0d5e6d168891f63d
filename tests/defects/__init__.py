"""PPO defects that earlier libraries had: one test per row of docs/ppo_defects.md."""
