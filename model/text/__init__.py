"""What models read of texts: the encoder, its cache, its teachers and the rehearsal of stage one."""
