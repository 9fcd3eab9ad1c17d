"""Runs that a store keeps: begun, claimed, journalled, resumed and worked off."""
