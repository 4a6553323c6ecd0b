"""The online door: HTTP routes over the pipeline, in OpenAI's wire format."""
