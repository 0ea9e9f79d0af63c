"""A fleet's signed bundles: published, verified, taken by steps that a kill cannot break"""
