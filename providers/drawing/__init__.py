"""How the demo provider draws: numpy planes of linear light, composed, graded and encoded."""
