"""Annotated regions of questions, as pixels and on the patch grid."""
