"""Federated personalization in TensorFlow Federated: train a global model, adapt it to each client, judge both."""
