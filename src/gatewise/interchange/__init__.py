"""Recurrent networks in and out: conventions of other libraries, formats, and the proof of each artifact."""
