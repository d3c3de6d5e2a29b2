"""A vision-language model as the judge of pairs, over HTTP, through any endpoint with OpenAI's chat completions API."""
