"""FastAPI + pydantic + pandas, as most teams write it. `def`, not `async def`: scoring blocks, so FastAPI's thread pool runs it.

Started with uvicorn: one process per worker, uvloop and httptools, access log off, numerical libraries' threads set to 1.
"""

from fastapi import FastAPI
from shared import Customer, Pipeline

app = FastAPI()
pipeline = Pipeline()


@app.post("/predict")
def predict(customer: Customer):
    return {"predictions": pipeline([customer.model_dump()])}


@app.post("/predict_many")
def predict_many(customers: list[Customer]):
    return {"predictions": pipeline([customer.model_dump() for customer in customers])}
