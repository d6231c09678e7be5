"""From reactions to the next model: labels, live taste, retraining, the gate, promotion and the way back."""
